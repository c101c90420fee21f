"""Parts of the bench `ssh`."""
