# shellcheck shell=sh
# Back into PXE.

reboot_box()
{
	(
		trap - TERM
		pause "$REBOOT_SECONDS"
		force_reboot
	) &
	systemctl reboot || reboot || force_reboot
	pause $((REBOOT_SECONDS + FORCE_SECONDS + 10))
}

force_reboot()
{
	reboot -f &
	pause "$FORCE_SECONDS"
	echo b >"$SYSRQ"
}
