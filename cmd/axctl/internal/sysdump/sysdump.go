// Package sysdump gathers what a bug report needs into one archive, without secrets.
//
// Invariant: nothing gets into the archive but through [Redact], each part is bounded in size and time, and one that
// can't be had leaves a note instead of ending the rest: a report is most needed when something is broken.
// Start reading at [Write].
package sysdump

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"
)

// Limits of a part.
const (
	MaxPart     = 16 << 20 // bytes; of a longer one the end is kept
	PartTimeout = 15 * time.Second
	MaxParts    = 256
)

// Part is one file of the archive.
type Part struct {
	Name string // within the archive, such as "tables/apps.json"
	JSON bool   // it is a document whose "command" fields lose their arguments
	Get  func(context.Context) ([]byte, error)
}

// Summary tells what became of the parts.
type Summary struct {
	Files   int
	Missing []string // names of the parts that could not be had, with the reason
}

// Write writes a .tar.gz of the parts to w, all in one directory called dir. now is the time that files bear.
func Write(ctx context.Context, w io.Writer, dir string, now time.Time, parts []Part) (Summary, error) {
	var s Summary
	if len(parts) > MaxParts {
		return s, fmt.Errorf("%d parts: at most %d", len(parts), MaxParts)
	}
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	add := func(name string, data []byte) error {
		s.Files++
		header := &tar.Header{Name: path.Join(dir, name), Mode: 0o600, Size: int64(len(data)), ModTime: now, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := archive.Write(data); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	}
	for _, p := range parts {
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		data, err := p.get(ctx)
		if err != nil {
			s.Missing = append(s.Missing, fmt.Sprintf("%s: %v", p.Name, err))
		}
		if len(data) == 0 {
			continue
		}
		if err := add(p.Name, data); err != nil {
			return s, err
		}
	}
	var note bytes.Buffer
	fmt.Fprintf(&note, "Written by `ax sysdump` at %s.\nSecrets are replaced by %s as far as they can be recognised; look through it before you pass it on.\n", now.UTC().Format(time.RFC3339), redacted)
	for _, m := range s.Missing {
		fmt.Fprintf(&note, "missing: %s\n", m)
	}
	if err := add("README.txt", Redact(note.Bytes())); err != nil {
		return s, err
	}
	if err := errors.Join(archive.Close(), zip.Close()); err != nil {
		return s, fmt.Errorf("write the archive: %w", err)
	}
	return s, nil
}

// get has the part made, and leaves the secrets out. What was made before an error is kept.
func (p Part) get(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, PartTimeout)
	defer cancel()
	data, err := p.Get(ctx)
	if p.JSON {
		data = redactCommands(data)
	}
	if len(data) > MaxPart {
		data = data[len(data)-MaxPart:]
	}
	return Redact(data), err
}
