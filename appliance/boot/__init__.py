"""Everything that a testbox boots: scripts, daemons' configurations, images, initramfs, runner."""
