package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a failure that crosses the wire: what is wrong, with which field, and what to do about it.
// It wraps Err, so errors.Is works on this side of the wire; the peer sees code, message and field.
type Error struct {
	Code  codes.Code
	Field string // of the request, in proto notation; empty if it isn't about one, or if Err names it
	Err   error
	Fix   string // what the caller can do; may be empty
}

// Errorf builds an [Error] from a format that may contain %w.
func Errorf(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Invalid is an INVALID_ARGUMENT for a request that err describes: what the From functions of axpb return.
func Invalid(err error) *Error { return &Error{Code: codes.InvalidArgument, Err: err} }

// On names the field that the error is about.
func (e *Error) On(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// WithFix says what the caller can do.
func (e *Error) WithFix(format string, args ...any) *Error {
	c := *e
	c.Fix = fmt.Sprintf(format, args...)
	return &c
}

// Error returns "field: what is wrong; fix".
func (e *Error) Error() string {
	s := e.Code.String()
	if e.Err != nil {
		s = e.Err.Error()
	}
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is how the error crosses the wire; a field becomes a google.rpc.BadRequest detail.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Code, e.Error())
	if e.Field == "" || e.Code == codes.OK {
		return st
	}
	detail := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: e.Error()}}}
	if with, err := st.WithDetails(detail); err == nil {
		return with
	}
	return st
}

// toStatus gives every error that leaves a handler a code: its own if it has one, that of a context error, else INTERNAL.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if own := (*Error)(nil); errors.As(err, &own) {
		return own.GRPCStatus().Err()
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
