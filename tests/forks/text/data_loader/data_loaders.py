import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from base import BaseDataLoader

PAD, UNK = 0, 1
NEUTRAL = ['the', 'a', 'film', 'plot', 'actor', 'scene', 'was', 'and', 'with', 'story', 'music', 'camera', 'it', 'very']
OPINION = [['awful', 'boring', 'weak', 'poor', 'messy'],
           ['okay', 'average', 'fine', 'usual', 'plain'],
           ['great', 'lovely', 'strong', 'funny', 'brilliant']]
VOCAB = ['<pad>', '<unk>'] + NEUTRAL + [word for words in OPINION for word in words]


class ReviewDataset(Dataset):
    """
    Short made-up reviews: neutral words with some words of opinion among them. Label 0, 1, 2: bad, so-so, good.
    """
    def __init__(self, n_reviews, seed, word_dropout=0.0):
        rng = np.random.RandomState(seed)
        stoi = {word: i for i, word in enumerate(VOCAB)}
        self.word_dropout = word_dropout
        self.reviews = []
        for _ in range(n_reviews):
            label = rng.randint(3)
            length = rng.randint(4, 19)
            words = [str(rng.choice(OPINION[label] if rng.rand() < 0.3 else NEUTRAL)) for _ in range(length)]
            self.reviews.append(([stoi[word] for word in words], label))

    def __len__(self):
        return len(self.reviews)

    def __getitem__(self, idx):
        tokens, label = self.reviews[idx]
        tokens = np.array(tokens)
        if self.word_dropout > 0:
            tokens[np.random.rand(len(tokens)) < self.word_dropout] = UNK
        return torch.from_numpy(tokens), label, idx


def pad_collate(batch):
    """ pads a list of (tokens, label, id), longest first as pack_padded_sequence wants it """
    batch = sorted(batch, key=lambda sample: len(sample[0]), reverse=True)
    tokens, labels, ids = zip(*batch)
    lengths = torch.tensor([len(t) for t in tokens])
    tokens = pad_sequence(tokens, batch_first=True, padding_value=PAD)
    return tokens, lengths, torch.tensor(labels), torch.tensor(ids)


class ReviewDataLoader(BaseDataLoader):
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True,
                 word_dropout=0.1):
        self.data_dir = data_dir
        if training:
            self.dataset = ReviewDataset(180, seed=0, word_dropout=word_dropout)
        else:
            self.dataset = ReviewDataset(60, seed=1)
        self.vocab = VOCAB
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers, collate_fn=pad_collate)

    def decode(self, tokens):
        return ' '.join(self.vocab[t] for t in tokens if t != PAD)
