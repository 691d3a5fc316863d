module appswitch.io/test

go 1.26.0
