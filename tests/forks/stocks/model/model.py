import torch.nn as nn
from base import BaseModel


class PriceLSTM(BaseModel):
    """
    Predicts the next return from a window of features, (N, window, n_features) -> (N,)
    """
    def __init__(self, n_features=2, hidden_size=16, num_layers=2, dropout=0.2):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.head = nn.Sequential(nn.Linear(hidden_size, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(out[:, -1]).squeeze(1)
