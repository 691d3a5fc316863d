// Command golookup prints the IPv4 addresses of the names given to it, as Go's own resolver finds them, one to a line.
//
// Its invariant: built without cgo, it never asks libc. Start reading at main.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	status := 0
	for _, name := range os.Args[1:] {
		addrs, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "golookup:", err)
			status = 1
		}
		for _, a := range addrs {
			fmt.Println(a)
		}
	}
	os.Exit(status)
}
