"""Defences by obfuscated gradients, each with the adaptive attack that breaks it.

    defended = defenses.bit_depth(logits_fn, bits=3)
    attack = attacks.pgd(0.2)
    both = {'naive': defended.naively(attack), 'adaptive': defended.adaptively(attack)}
    evaluation.evaluate(defended.deployed, x, y, both, key=key)

None of them makes a network robust. They show how accuracy under a naive attack
misleads (``evaluation.masking`` reports the symptoms), and serve as test cases of
adaptive attacks.

defence              gradients     broken by
thermometer          shattered     BPDA, a ramp
bit_depth            shattered     BPDA, the identity
jpeg                 shattered     BPDA, the identity
total_variation      shattered     BPDA and EOT
resize_pad           stochastic    EOT
activation_pruning   stochastic    EOT
dropout              stochastic    EOT
saturated            vanishing     rescaled logits
projection           vanishing     reparameterisation

Reference: Athalye et al. 2018, arXiv 1802.00420.
"""

from advjax.defenses.activations import with_activations
from advjax.defenses.bit_depth import bit_depth
from advjax.defenses.decoder import Decoder, train_decoder
from advjax.defenses.defended import Defended, preprocessed, randomised
from advjax.defenses.dropout import dropout
from advjax.defenses.jpeg import jpeg
from advjax.defenses.projection import projection
from advjax.defenses.pruning import activation_pruning
from advjax.defenses.resize_pad import resize_pad
from advjax.defenses.saturated import saturated
from advjax.defenses.thermometer import thermometer, thermometer_model
from advjax.defenses.total_variation import total_variation

__all__ = [
    'Decoder',
    'Defended',
    'activation_pruning',
    'bit_depth',
    'dropout',
    'jpeg',
    'preprocessed',
    'projection',
    'randomised',
    'resize_pad',
    'saturated',
    'thermometer',
    'thermometer_model',
    'total_variation',
    'train_decoder',
    'with_activations',
]
