// Command golookup prints the addresses of the names given to it, as Go's own resolver finds them, one to a line: the IPv4
// ones, or with -network ip6 the others.
//
// Its invariant: built without cgo, it never asks libc. Start reading at main.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
)

func main() {
	network := flag.String("network", "ip4", "ip4, ip6, or ip for both")
	flag.Parse()
	status := 0
	for _, name := range flag.Args() {
		addrs, err := net.DefaultResolver.LookupIP(context.Background(), *network, name)
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
