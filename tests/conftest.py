"""What every test shares: one thread for the maths libraries, so that tests measure us and a 2-core machine stays usable."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
