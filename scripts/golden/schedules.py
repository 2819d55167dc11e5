"""Noise schedules, DDIM timesteps and trajectories, and learning-rate schedules."""

import json

import common
import torch
from common import generator, randn, save
from diffusers import DDIMScheduler
from diffusers.optimization import get_scheduler

SPACINGS = ["leading", "linspace", "trailing"]
COUNTS = [5, 7, 25, 50, 999]
STEPS = 5
SHAPE = (1, 4, 2, 4, 4)


def ddim(**options):
    defaults = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False)
    return DDIMScheduler(**(defaults | options))


def tables():
    return {f"{name}.alphas_cumprod": ddim(beta_schedule=name).alphas_cumprod for name in ["linear", "scaled_linear"]}


def timesteps():
    tensors = {}
    for spacing in SPACINGS:
        for count in COUNTS:
            scheduler = ddim(timestep_spacing=spacing)
            scheduler.set_timesteps(count)
            tensors[f"ddim.{spacing}.{count}"] = scheduler.timesteps.to(torch.int64)
            assert len(scheduler.timesteps) == count, (spacing, count, len(scheduler.timesteps))
    return tensors


def trajectory(scheduler, start, outputs):
    """The sample after each step when the model returns `outputs` in order (eta 0)."""
    scheduler.set_timesteps(STEPS)
    samples, x = [], start
    for t, output in zip(scheduler.timesteps, outputs):
        x = scheduler.step(output, t, x, eta=0.0).prev_sample
        samples.append(x)
    return torch.stack(samples)


def trajectories():
    rng = generator("trajectories")
    start = randn(rng, *SHAPE)
    tensors = {"traj.x_T": start}
    for spacing in SPACINGS:
        for last, to_one in [("one", True), ("zero", False)]:
            for prediction in ["epsilon", "v_prediction"]:
                scheduler = ddim(timestep_spacing=spacing, set_alpha_to_one=to_one, prediction_type=prediction)
                record(tensors, f"traj.{spacing}.{last}.{prediction}", scheduler, start, rng)
    record(tensors, "traj.leading.one.epsilon_clip", ddim(clip_sample=True), start, rng)
    return tensors


def record(tensors, name, scheduler, start, rng):
    outputs = randn(rng, STEPS, *SHAPE)
    tensors[f"{name}.eps"] = outputs
    tensors[f"{name}.out"] = trajectory(scheduler, start, outputs)


def add_noise():
    rng = generator("add noise")
    clean, noise = randn(rng, 4, 4, 2, 4, 4), randn(rng, 4, 4, 2, 4, 4)
    steps = torch.tensor([0, 1, 499, 999])
    tensors = {"add_noise.clean": clean, "add_noise.noise": noise, "add_noise.timesteps": steps}
    for name in ["linear", "scaled_linear"]:
        tensors[f"add_noise.{name}"] = ddim(beta_schedule=name).add_noise(clean, noise, steps)
    return tensors


LR_CASES = [
    ("constant", {}), ("constant_with_warmup", {}), ("linear", {}), ("cosine", {}),
    ("cosine_with_restarts", {"num_cycles": 3}), ("polynomial", {"power": 1.0}), ("polynomial", {"power": 2.0})]
WARMUP, TOTAL, RATE = 10, 50, 1e-3


def learning_rates(name, options):
    """Learning rate in force at steps 0..60 (value k is used by update number k, counted from 0)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=WARMUP, num_training_steps=TOTAL, **options)
    values = []
    for _ in range(61):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return values


def write_learning_rates():
    cases = [{"name": name, "warmup": WARMUP, "total": TOTAL, "base_lr": RATE} | options | {"values": learning_rates(name, options)}
             for name, options in LR_CASES]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (common.GOLDEN / "lr_schedules.json").write_text(f"[\n{lines}\n]\n")


def main():
    common.setup()
    save("schedules", tables() | timesteps() | trajectories() | add_noise())
    write_learning_rates()


if __name__ == "__main__":
    main()
