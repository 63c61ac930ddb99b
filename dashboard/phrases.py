"""What each criterion removes, as the end of `Remove the 90 % of weights ...`."""

from __future__ import annotations

CRITERIA = {
    "magnitude": "smallest in magnitude",
    "random": "drawn by lot",
    "gradient": "with the smallest gradients",
    "taylor": "that change the loss least",
    "fisher": "with the least Fisher information",
    "obd": "along which the loss bends least (OBD)",
    "hutchinson": "along which the loss bends least (Hutchinson)",
    "obs": "that the others can best make up for (OBS)",
    "snip": "that the loss depends on least (SNIP)",
    "grasp": "without which gradients flow best (GraSP)",
    "synflow": "that carry least of the flow (SynFlow)",
    "wanda": "smallest in magnitude times input (Wanda)",
    "movement": "that training moves towards zero",
    "bn_scale": "with the smallest BatchNorm scale",
    "geometric_median": "most like the others of their layer",
    "activation": "that answer least",
}
