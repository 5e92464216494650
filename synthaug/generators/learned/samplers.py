"""Sampling of a lesion from noise by the schedulers of diffusers, whichever path they were made for.

A scheduler's state is a u_0 + b n with its own a and b at each step. Divided by a + b, every such state lies on the
flow's path (`synthaug.generators.learned.flow`) at t = b / (a + b), where the network knows it. What comes back is the
expectation of u_0, and the scheduler is given what it expects of it: so any of them solves the same differential
equation, on its own grid of times.

DDIM has its cosine schedule, a^2 + b^2 = 1, and DPM-Solver++ flow matching's, a + b = 1. Euler's steps go along the
angle w, a = cos(w) and b = sin(w), the trigonometric interpolant of Albergo & Vanden-Eijnden 2023 (arXiv 2209.15571):
where a lesion is no more than noise of its own spread and texture, they are exact, while each of DDIM's loses a factor
of cos(w - w') of the spread, a quarter of it in four steps.

All are deterministic: the noise is drawn once, at the start.
"""

import copy
import math
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
    """Make a scheduler of diffusers with its timesteps set, from pure noise on.

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
    scheduler: Any
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
    denoise: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    scheduler: str = "flow_match_euler",
    steps: int = 4,
    start: Tensor | None = None,
    strength: float = 1.0,
    finish: Callable[[Tensor, float], Tensor] | None = None,
) -> Tensor:
    """Follow the path from noise to u_0.

    Args:
        denoise: gives the expectation of u_0 for a state on the flow's path (N, ...) and its time t in (0, 1].
        noise: (N, ...) n.
        scheduler: one of `SCHEDULERS`.
        steps: number of steps of the whole path, one call for each.
        start: (N, ...) u_0 to start from, noised, where `strength` is below 1.
        strength: share of the path that is gone, as in diffusers' image-to-image pipelines: of 4 steps, 0.75 goes the
            last three.
        finish: called in the last step in place of `denoise`, gives u_0 itself.

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
    for n in range(first, steps):
        a, b = plan.levels[n]
        on_path, time = state / (a + b), b / (a + b)
        if n == steps - 1 and finish is not None:
            return finish(on_path, time)
        found = denoise(on_path, time)
        if n == steps - 1 and plan.kind != "angle":
            return found  # DDIM would stop short of it where 1000 is no multiple of the steps
        state = solver.step(_wanted(plan.kind, found, state, a, b), plan.timesteps[n], state).prev_sample
    return state


def _wanted(kind: str, found: Tensor, state: Tensor, a: float, b: float) -> Tensor:
    """Convert the u_0 that was found behind a state a u_0 + b n to what the scheduler expects."""
    if kind == "sample":
        return found
    # derivatives of the state: by t, n - u_0; by the share of the quarter circle, that of a = cos, b = sin
    return (state - found) / b if kind == "velocity" else (a * state - found) * (math.pi / 2 / b)


@dataclass(frozen=True)
class SolverPlan:
    """A scheduler's steps as plain numbers, known beforehand: reading them waits for no device.

    Attributes:
        solver: the scheduler; to be copied, for it keeps what it saw.
        timesteps: what `solver.step` is to be told.
        levels: factors a and b of u_0 and of the noise in its state before each step.
        kind: the scheduler's input: u_0 (``"sample"``), or the state's derivative by t (``"velocity"``) or by the share
            of the quarter circle that is still to go (``"angle"``).
    """

    solver: Any
    timesteps: tuple[float, ...]
    levels: tuple[tuple[float, float], ...]
    kind: str


@cache
def prepared(name: str, steps: int) -> SolverPlan:
    """Plan a scheduler's steps; see `make_scheduler`."""
    solver = make_scheduler(name, steps)
    timesteps = tuple(solver.timesteps.tolist())
    if name == "ddim":
        kept = [float(solver.alphas_cumprod[t]) for t in timesteps]
        return SolverPlan(solver, timesteps, tuple((k**0.5, (1 - k) ** 0.5) for k in kept), "sample")
    sigmas = solver.sigmas[:steps].tolist()
    if name == "flow_match_euler":
        angles = [math.pi / 2 * sigma for sigma in sigmas]
        return SolverPlan(solver, timesteps, tuple((math.cos(w), math.sin(w)) for w in angles), "angle")
    return SolverPlan(solver, timesteps, tuple((1 - sigma, sigma) for sigma in sigmas), "velocity")
