package launch

// System calls that package syscall doesn't name.
const (
	sysSeccomp     = 277
	sysMemfdCreate = 279
	sysCloseRange  = 436
)
