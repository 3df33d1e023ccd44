import torch.nn.functional as F


def cross_entropy_aux(output, target, aux_weight=0.4):
    main, aux = output
    return F.cross_entropy(main, target) + aux_weight * F.cross_entropy(aux, target)
