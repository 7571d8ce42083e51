#!/bin/bash
# A real run under a real Prometheus and Alertmanager: the dashboard's queries, and alerts that fire and end. For Debian,
# as root; what is missing is installed, and the tests end what they started.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck disable=SC1091 # it is checked by itself
. tests/cluster/installing.bash

provide "prometheus promtool prometheus-alertmanager" prometheus prometheus-alertmanager
OMP_NUM_THREADS=1 .venv/bin/pytest tests/launch/test_monitoring.py tests/launch/test_live_monitoring.py
