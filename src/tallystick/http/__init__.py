"""What every HTTP door shares: access keys, limits, problems, the guarded protocol, the way to the api process."""
