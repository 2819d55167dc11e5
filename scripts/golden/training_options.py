"""Options of training: EMA decays and averages, the zero-terminal-SNR schedule (diffusers), levels of 8-bit moments (bitsandbytes).

Writes tests/golden/training_options.json.
"""

import json

import bitsandbytes.functional
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import EMAModel

from common import GOLDEN

UPDATES = [1, 2, 3, 10, 100, 1000, 100000]


def decays(**options):
    average = EMAModel([torch.nn.Parameter(torch.zeros(1))], **options)
    return {"options": options, "updates": UPDATES, "decays": [average.get_decay(update) for update in UPDATES]}


def averages(**options):
    """The average of one number that is 1, 2, 3, … after each update."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = EMAModel([parameter], **options)
    values = []
    for update in range(1, 21):
        parameter.data.fill_(float(update))
        average.step([parameter])
        values.append(average.shadow_params[0].item())
    return {"options": options, "averages": values}


def rescaled(schedule):
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=schedule, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    return scheduler.alphas_cumprod.tolist()


warm = dict(decay=0.999, use_ema_warmup=True, inv_gamma=1.0, power=0.75, update_after_step=2)
content = {
    "ema_decays": [decays(decay=0.9999), decays(decay=0.9, update_after_step=5), decays(**warm)],
    "ema_averages": [averages(decay=0.9999), averages(**warm)],
    "zero_snr": {name: rescaled(name) for name in ("linear", "scaled_linear")},
    "levels": {
        "signed": bitsandbytes.functional.create_dynamic_map(True).tolist(),
        "unsigned": bitsandbytes.functional.create_dynamic_map(False).tolist(),
    },
}
(GOLDEN / "training_options.json").write_text(json.dumps(content) + "\n")
