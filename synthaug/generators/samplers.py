"""From noise to a lesion with the schedulers of diffusers, whichever path they were made for.

A scheduler's state is a u_0 + b n with its own a and b at each step: variance-preserving ones have a^2 + b^2 = 1,
those of flow matching a + b = 1. Divided by a + b, every such state lies on the flow's path
(`synthaug.generators.flow`) at t = b / (a + b), where the network knows it. What comes back is u_0, and the scheduler
is given what it expects of it: so any of them solves the same differential equation, on its own grid of times.

All are deterministic: the noise is drawn once, at the start.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

SCHEDULERS = ("flow_match_euler", "ddim", "dpmsolver++")
"""FlowMatchEulerDiscreteScheduler, DDIMScheduler (Song et al. 2021, arXiv 2010.02502) and DPMSolverMultistepScheduler,
second order (Lu et al. 2022, arXiv 2211.01095), of diffusers."""

TRAIN_STEPS = 1000


def make_scheduler(name: str, steps: int) -> Any:
    """A scheduler of diffusers with its timesteps set, from pure noise on.

    Raises:
        ValueError: another name than those in `SCHEDULERS`, or fewer than one step.
        ImportError: diffusers is not installed.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {name!r}")
    if steps < 1:
        raise ValueError(f"steps: expected 1 or more, got {steps}")
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("the diffusion generator needs: pip install diffusers") from error
    if name == "flow_match_euler":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(TRAIN_STEPS)
        # its own grid ends with a step from t = 0.001, which would waste one of few
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
        return scheduler
    if name == "ddim":
        scheduler = diffusers.DDIMScheduler(
            TRAIN_STEPS,
            beta_schedule="squaredcos_cap_v2",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            prediction_type="sample",
            clip_sample=False,
        )
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(
            TRAIN_STEPS, use_flow_sigmas=True, prediction_type="flow_prediction"
        )
    scheduler.set_timesteps(steps)
    return scheduler


def sample(
    denoise: Callable[[Tensor, float, bool], Tensor],
    noise: Tensor,
    scheduler: str = "flow_match_euler",
    steps: int = 4,
    start: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Follow the path from noise to u_0.

    Args:
        denoise: gives u_0, or its expectation, for a state on the flow's path (N, ...), its time t in (0, 1], and
            whether this is the last step, whose answer is the result.
        noise: (N, ...) n.
        scheduler: one of `SCHEDULERS`.
        steps: of the whole path; `denoise` is called once for each.
        start: (N, ...) u_0 to start from, noised, where `strength` is below 1.
        strength: share of the path that is gone, as in diffusers' image-to-image pipelines: of 4 steps, 0.75 goes the
            last three.

    Returns:
        (N, ...) u_0.

    Raises:
        ValueError: an unknown scheduler, steps below 1, a strength outside (0, 1], or one below 1 without `start`.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength: expected above 0 and at most 1, got {strength}")
    if strength < 1 and start is None:
        raise ValueError(f"strength {strength}: expected something to start from, got none")
    plan = prepared(scheduler, steps)
    solver = copy.deepcopy(plan.solver)
    first = steps - max(1, round(steps * strength))
    if hasattr(solver, "set_begin_index"):
        solver.set_begin_index(first)
    a, b = plan.levels[first]
    state = b * noise + (0 if start is None or first == 0 else a * start)
    for (a, b), timestep in zip(plan.levels[first:-1], plan.timesteps[first:-1], strict=True):
        found = denoise(state / (a + b), b / (a + b), False)
        wanted = (state - found) / b if plan.velocity else found
        state = solver.step(wanted, timestep, state).prev_sample
    a, b = plan.levels[-1]
    # here every path ends; DDIM would stop short of it where 1000 is no multiple of the steps
    return denoise(state / (a + b), b / (a + b), True)


@dataclass(frozen=True)
class Plan:
    """What is known of a scheduler's steps beforehand, as plain numbers: reading them waits for no device.

    Attributes:
        solver: the scheduler; to be copied, for it keeps what it saw.
        timesteps: what `solver.step` is to be told.
        levels: factors a and b of u_0 and of the noise in its state before each step.
        velocity: whether it expects the flow's velocity, n - u_0, or u_0 itself.
    """

    solver: Any
    timesteps: tuple[float, ...]
    levels: tuple[tuple[float, float], ...]
    velocity: bool


@cache
def prepared(name: str, steps: int) -> Plan:
    """The plan of a scheduler; see `make_scheduler`."""
    solver = make_scheduler(name, steps)
    timesteps = tuple(solver.timesteps.tolist())
    if solver.config.get("prediction_type") == "sample":
        kept = [float(solver.alphas_cumprod[t]) for t in timesteps]
        return Plan(solver, timesteps, tuple((k**0.5, (1 - k) ** 0.5) for k in kept), velocity=False)
    return Plan(solver, timesteps, tuple((1 - s, s) for s in solver.sigmas[:steps].tolist()), velocity=True)
