import torch.nn as nn
import torch.nn.functional as F
from base import BaseModel


class BasicBlock(nn.Module):
    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class NormedLinear(nn.Module):
    """ cosine classifier: the norm of a class's weights does not follow its frequency """
    def __init__(self, in_features, out_features, scale=10.0):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x):
        return self.scale * F.linear(F.normalize(x, dim=1), F.normalize(self.linear.weight, dim=1))


class TinyResNet(BaseModel):
    def __init__(self, num_classes=6, planes=8, dropout=0.1):
        super().__init__()
        self.layer1 = BasicBlock(3, planes)
        self.layer2 = BasicBlock(planes, 2 * planes, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.fc = NormedLinear(2 * planes, num_classes)

    def forward(self, x):
        x = self.layer2(self.layer1(x))
        x = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        return self.fc(self.dropout(x))
