package telemetry

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// startProfiles begins the CPU profile; the function it returns writes both. The files are created at once, so that a
// path that can't be written is an error at start and not at the end.
func (t *Telemetry) startProfiles() (stop func() error, err error) {
	var cpu, mem *os.File
	if t.cfg.CPUProfile != "" {
		if cpu, err = os.Create(t.cfg.CPUProfile); err != nil {
			return nil, fmt.Errorf("--cpu-profile: %w", err)
		}
	}
	if t.cfg.MemProfile != "" {
		if mem, err = os.Create(t.cfg.MemProfile); err != nil {
			return nil, errors.Join(fmt.Errorf("--mem-profile: %w", err), closeFile(cpu))
		}
	}
	if cpu != nil {
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return nil, errors.Join(fmt.Errorf("--cpu-profile: %w", err), closeFile(cpu), closeFile(mem))
		}
	}
	return func() error {
		var errs []error
		if cpu != nil {
			pprof.StopCPUProfile()
			errs = append(errs, closeFile(cpu))
		}
		if mem != nil {
			runtime.GC() // the heap profile is as of the last collection
			errs = append(errs, pprof.WriteHeapProfile(mem), closeFile(mem))
		}
		return errors.Join(errs...)
	}, nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
