#!/bin/sh
# Installs Slurm and munge from Debian's or Ubuntu's packages, where there are none. Where that is not possible it says
# so, and the tests are skipped with the reason.
command -v munged slurmctld slurmd >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Slurm is not here, and cannot be installed: that takes root and apt-get" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null ||
  echo "apt-get could not install Slurm" >&2
