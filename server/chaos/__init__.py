"""`stockray chaos`: load through the real client while real processes are killed, held and cut off."""
