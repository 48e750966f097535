"""The factory: fit PatchCore to a folder of normal boards and export it as an artifact."""
