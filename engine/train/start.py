"""The gaussians before the first step."""

import numpy as np
import torch

from engine.errors import CaptureError
from engine.order import morton_order
from engine.scene import Reconstruction
from engine.train.init import camera_extent, gaussians_from_points
from engine.train.shell import shell_radius, shell_rows
from engine.train.watch import Setup


def first_rows(setup: Setup, scene: Reconstruction, generator: torch.Generator) -> torch.Tensor:
    """Return the gaussians to start from: one a sparse point, and a shell far behind them, [N, 64], along a Morton curve.

    They are made on the CPU, so that every device starts from the same, and moved to the run's device.
    Raises ``CaptureError`` where there is no point.
    """
    recipe, budget = setup.recipe, setup.options.max_gaussians
    centres = np.stack([image.centre_in_world for image in scene.images])
    centre = centres.mean(axis=0)
    # Nothing is behind an object that was cut out.
    n_shell = 0 if any(photo.alpha for photo in setup.split.train) else int(recipe.shell_share * budget)
    rows = gaussians_from_points(scene, setup.device, recipe, budget - n_shell, generator)
    if len(rows) == 0:
        raise CaptureError(
            "capture.no_points", "No points", "the reconstruction has no 3D points to start from", "Take photos with more overlap."
        )
    if n_shell:
        radius = shell_radius(scene.points.xyz, centre, camera_extent(centres))
        rows = torch.cat([rows, shell_rows(setup.split.train, setup.photos, centre, radius, n_shell, recipe.init_opacity)])
    return rows[torch.from_numpy(morton_order(rows[:, :3].numpy()))].to(setup.device.tensors)
