"""The only user of private names of aiortc, aioice and pyOpenSSL, a module for each subject.

Each module lists the private names that it uses in PRIVATE_NAMES, and a test makes sure that the pinned
releases still have them.
"""

import flyx.rtc.seam.loading  # before anything imports aiortc or aioice

# isort: split
import flyx.rtc.seam.attributes  # noqa: F401  # for what it does to aioice's table
