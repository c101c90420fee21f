"""Figures, as ratios taken side by side in one run. `fleet bench NAME` runs one."""
