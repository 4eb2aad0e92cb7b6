"""Devices and processes: meshes and shardings, the hosts of a pod, what a chip can do."""
