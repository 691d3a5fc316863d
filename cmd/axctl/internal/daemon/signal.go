package daemon

// Signal is the cause of an end that was asked for: the name of the signal.
type Signal struct{ Name string }

func (s *Signal) Error() string { return "received signal: " + s.Name }
