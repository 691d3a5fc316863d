package launch

// System calls that package syscall doesn't name.
const (
	sysSeccomp     = 317
	sysMemfdCreate = 319
	sysCloseRange  = 436
)
