import torch.nn.functional as F


def domain_adversarial_loss(output, target, subject_output, subject):
    """ the gradient of the second term is turned round inside the model """
    return F.cross_entropy(output, target) + 0.1 * F.cross_entropy(subject_output, subject)
