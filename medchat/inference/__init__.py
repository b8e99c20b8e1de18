"""The toolkit for plugins: reading checkpoints safely, decoding, adapters, fine-tuning. Knows no family."""

import logging

# peft imports bitsandbytes where it is installed, which then warns of a kernel that nobody asked it for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
