package output

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Tone is what a piece of a table means to its reader. On a terminal it has a colour.
type Tone uint8

// The tones.
const (
	Plain    Tone = iota
	Good          // fine, admitted
	Doubtful      // works, with a limitation
	Bad           // broken, refused
	Strong        // a heading
)

// escapes are the SGR sequences of the tones: of the eight colours that every terminal has.
var escapes = [...]string{Good: "\x1b[32m", Doubtful: "\x1b[33m", Bad: "\x1b[31m", Strong: "\x1b[1m"}

const reset = "\x1b[0m"

// paint gives text, which is safe to show, the colour of the tone.
func (t Tone) paint(text string) string {
	if t == Plain || int(t) >= len(escapes) || text == "" {
		return text
	}
	return escapes[t] + text + reset
}

// Coloured reports whether what is written to w is shown in colours: on a terminal that has them, unless the user asks
// for none (NO_COLOR, https://no-color.org).
func Coloured(w io.Writer) bool {
	return IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Paint returns text in the colour of a tone if w shows colours, else as it is.
func Paint(w io.Writer, tone Tone, text string) string {
	if !Coloured(w) {
		return text
	}
	return tone.paint(text)
}
