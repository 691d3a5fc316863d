// Package house keeps the rules of the house that a compiler doesn't: who may import whom, one doc comment per package,
// no endless files, no drawers called util, no skipped tests, no unfinished work.
//
// It holds nothing but tests, and they see every package of the workspace (go.work), present and future. Start reading
// at the table of import rules in imports_test.go.
package house
