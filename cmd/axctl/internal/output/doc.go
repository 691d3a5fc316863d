// Package output writes what the commands found: tables for people, JSON, YAML and names for programs.
//
// Invariant: what it writes depends on its arguments only. Columns line up by display width, whatever the script of a
// name, and text that came from elsewhere can't move a terminal's cursor. Start reading at [Table] and [Columns].
package output
