"""Samplers: noise levels, steps, row state, and the interface by which an inversion speaks to the loop."""

from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.sampling.consistency import Consistency
from p2p_bench.sampling.ddim import DDIM, ddim_inverse_step, ddim_step
from p2p_bench.sampling.dpm_solver import DPMSolver
from p2p_bench.sampling.noise import initial_noise, step_noise
from p2p_bench.sampling.replay import NoiseReplay, Replay, classifier_free, noise_replay
from p2p_bench.sampling.sampler import (
    DDIMSampler,
    DPMSolverSampler,
    EulerSampler,
    FlowSampler,
    LCMSampler,
    Sampler,
)
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper, select_rows

__all__ = [
    "DDIM",
    "Consistency",
    "DDIMSampler",
    "DPMSolver",
    "DPMSolverSampler",
    "EulerSampler",
    "FlowSampler",
    "LCMSampler",
    "NoiseReplay",
    "NoiseSchedule",
    "Replay",
    "RowState",
    "Sampler",
    "StepContext",
    "Stepper",
    "classifier_free",
    "ddim_inverse_step",
    "ddim_step",
    "initial_noise",
    "noise_replay",
    "select_rows",
    "step_noise",
]
