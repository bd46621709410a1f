"""Labels in minutes: the weights of all networks of a space in one, trained once.

supernet = digits.supernet(seed=0)
train_supernet(supernet)
supernet.evaluate(sample)   # here the variance of the validation targets explained, in percent
"""

from nni_aiop.supernet._data import Batches, SupernetData, accuracy, as_data, explained
from nni_aiop.supernet._extremes import extreme
from nni_aiop.supernet._labelling import Labelling, recalibrate, refit_head
from nni_aiop.supernet._options import SupernetTraining
from nni_aiop.supernet._sampling import SAMPLINGS
from nni_aiop.supernet._slices import part_of
from nni_aiop.supernet._supernet import Supernet
from nni_aiop.supernet._training import train_supernet

__all__ = [
    "SAMPLINGS",
    "Batches",
    "Labelling",
    "Supernet",
    "SupernetData",
    "SupernetTraining",
    "accuracy",
    "as_data",
    "explained",
    "extreme",
    "part_of",
    "recalibrate",
    "refit_head",
    "train_supernet",
]
