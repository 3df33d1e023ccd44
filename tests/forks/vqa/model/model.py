import torch
import torch.nn as nn
import torch.nn.functional as F
from base import BaseModel


class ImageEncoder(nn.Module):
    def __init__(self, out_dim):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 4 * 4, out_dim)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.view(x.size(0), -1))


class QuestionEncoder(nn.Module):
    def __init__(self, vocab_size, embed_dim, out_dim):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=0)
        self.lstm = nn.LSTM(embed_dim, out_dim, batch_first=True)

    def forward(self, question):
        _, (hidden, _) = self.lstm(self.embedding(question))
        return hidden[-1]


class VQAModel(BaseModel):
    """
    Image and question are encoded, multiplied and classified among the answers. Takes the batch as it comes, a dict.
    """
    def __init__(self, vocab_size, num_answers, embed_dim=16, hidden_dim=32, dropout=0.3):
        super().__init__()
        self.image_encoder = ImageEncoder(hidden_dim)
        self.question_encoder = QuestionEncoder(vocab_size, embed_dim, hidden_dim)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, num_answers)
        )

    def forward(self, batch):
        image = self.image_encoder(batch['image'])
        question = self.question_encoder(batch['question'])
        return self.classifier(torch.tanh(image) * torch.tanh(question))
