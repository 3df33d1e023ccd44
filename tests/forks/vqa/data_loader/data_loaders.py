import numpy as np
import torch
from torch.utils.data import Dataset
from base import BaseDataLoader

COLORS = {'red': (0.9, 0.1, 0.1), 'green': (0.1, 0.9, 0.1), 'blue': (0.1, 0.1, 0.9)}
ANSWERS = ['no', 'yes', 'left', 'right'] + list(COLORS)
WORDS = ['<pad>', 'what', 'which', 'is', 'the', 'color', 'side', 'square', 'on', 'it'] + list(COLORS)
MAX_WORDS = 6


class SquaresVQA(Dataset):
    """ a colored square on the left or right of an image, and a question about it """
    def __init__(self, n_questions, seed):
        rng = np.random.RandomState(seed)
        self.word2idx = {word: i for i, word in enumerate(WORDS)}
        self.answer2idx = {answer: i for i, answer in enumerate(ANSWERS)}
        self.entries = []
        for i in range(n_questions):
            color, side = str(rng.choice(list(COLORS))), str(rng.choice(['left', 'right']))
            image = 0.1 * rng.rand(3, 16, 16)
            y, x = rng.randint(0, 10), rng.randint(0, 3) + (0 if side == 'left' else 8)
            image[:, y:y + 5, x:x + 5] += np.array(COLORS[color]).reshape(3, 1, 1)
            asked = str(rng.choice(list(COLORS)))
            question, answer = [
                ('what color is the square', color),
                ('which side is it on', side),
                ('is the square {}'.format(asked), 'yes' if asked == color else 'no')
            ][rng.randint(3)]
            self.entries.append({
                'image': torch.tensor(image, dtype=torch.float32),
                'image_id': 'squares_{:04d}'.format(i),
                'question_text': question,
                'answer_text': answer
            })

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, idx):
        sample = dict(self.entries[idx])
        tokens = [self.word2idx[word] for word in sample['question_text'].split()]
        sample['question'] = torch.tensor(tokens + [0] * (MAX_WORDS - len(tokens)))
        sample['answer'] = self.answer2idx[sample['answer_text']]
        return sample


class VQADataLoader(BaseDataLoader):
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True):
        self.data_dir = data_dir
        self.dataset = SquaresVQA(180 if training else 60, seed=0 if training else 1)
        self.answers = ANSWERS
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
