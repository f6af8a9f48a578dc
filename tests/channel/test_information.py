"""Information of log-probabilities against finite sums, derivatives and another implementation."""

import math

import numpy as np
import pytest
import torch

import rbpp
from rbpp.channel.contrast import contrast
from rbpp.channel.log_probabilities import log_probabilities
from rbpp.theory.information import contrastive_bounds

from channel.letters import Letters
