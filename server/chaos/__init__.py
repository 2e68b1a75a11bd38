"""`stockray chaos`: load by the real client while real processes are killed, held, cut off."""
