import argparse
import collections
import torch
import numpy as np
import data_loader.data_loaders as module_data
import model.loss as module_loss
import model.metric as module_metric
import model.model as module_arch
from parse_config import ConfigParser
from trainer import GANTrainer
from utils import prepare_device


# the same run every time
SEED = 123
torch.manual_seed(SEED)
torch.backends.cudnn.deterministic = True
torch.backends.cudnn.benchmark = False
np.random.seed(SEED)

def main(config):
    logger = config.get_logger('train')

    data_loader = config.init_obj('data_loader', module_data)

    generator = config.init_obj('generator', module_arch)
    discriminator = config.init_obj('discriminator', module_arch)
    logger.info(generator)
    logger.info(discriminator)

    device, _ = prepare_device(config['n_gpu'])
    generator = generator.to(device)
    discriminator = discriminator.to(device)

    criterion = getattr(module_loss, config['loss'])
    metrics = [getattr(module_metric, met) for met in config['metrics']]

    # build an optimizer for each model; the learning rates are constant
    optimizer_G = config.init_obj('optimizer_G', torch.optim, generator.parameters())
    optimizer_D = config.init_obj('optimizer_D', torch.optim, discriminator.parameters())

    trainer = GANTrainer(generator, discriminator, criterion, metrics, optimizer_G, optimizer_D,
                         config=config,
                         device=device,
                         data_loader=data_loader)

    trainer.train()


if __name__ == '__main__':
    args = argparse.ArgumentParser(description='GAN on PyTorch Template')
    args.add_argument('-c', '--config', default=None, type=str,
                      help='config file')
    args.add_argument('-r', '--resume', default=None, type=str,
                      help='checkpoint to go on from')
    args.add_argument('-d', '--device', default=None, type=str,
                      help='GPUs to use, by index')

    # command line options that change the config
    CustomArgs = collections.namedtuple('CustomArgs', 'flags type target')
    options = [
        CustomArgs(['--lr_G'], type=float, target='optimizer_G;args;lr'),
        CustomArgs(['--lr_D'], type=float, target='optimizer_D;args;lr'),
        CustomArgs(['--bs', '--batch_size'], type=int, target='data_loader;args;batch_size')
    ]
    config = ConfigParser.from_args(args, options)
    main(config)
