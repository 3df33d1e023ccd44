import torch
import torch.nn as nn
from torch.nn.utils.rnn import pack_padded_sequence
from base import BaseModel


class GRUClassifier(BaseModel):
    """
    Bidirectional GRU over padded token sequences; the last hidden states of both directions are classified
    """
    def __init__(self, vocab_size, embed_dim=16, hidden_dim=16, num_classes=3, dropout=0.3, pad_idx=0):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=pad_idx)
        self.rnn = nn.GRU(embed_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * hidden_dim, num_classes)

    def forward(self, tokens, lengths):
        embedded = self.dropout(self.embedding(tokens))
        # batches are sorted by length in collate_fn
        packed = pack_padded_sequence(embedded, lengths, batch_first=True)
        _, hidden = self.rnn(packed)
        hidden = torch.cat([hidden[0], hidden[1]], dim=1)
        return self.fc(self.dropout(hidden))
