package daemon

// SignalError is the cause of an end that was asked for.
type SignalError struct{ Name string } // of the signal

func (s *SignalError) Error() string { return "received signal: " + s.Name }
