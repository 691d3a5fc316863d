package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
)

// MaxMessage bounds one message of a stream, in bytes: the 4 MiB of a gRPC message take more than that as JSON.
const MaxMessage = 16 << 20

// ErrStreamEnded says that the daemon ended a stream.
var ErrStreamEnded = errors.New("the daemon ended the stream")

// Stream reads path as a stream of messages and calls each with every one, as JSON that is valid until each returns.
// It ends with an error of each, of the daemon, or of ctx; [ErrStreamEnded] if the daemon had no more to say. Between
// messages it waits as long as it takes: the client's timeout bounds only the way to the daemon.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, each func(json.RawMessage) error) error {
	u := strings.TrimSuffix(c.base.String(), "/") + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return fmt.Errorf("request %s: %w", path, err)
	}
	req.Header.Set("Accept", "application/json")
	endless := &http.Client{Transport: c.http.Transport}
	resp, err := endless.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, MaxMessage))
		if err != nil {
			return c.unreachable(err)
		}
		return c.refusal(resp, data)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, MaxMessage)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		result, err := message(lines.Bytes())
		if errors.Is(err, errForeign) {
			return c.foreign(path, err.Error())
		}
		if err != nil {
			return err
		}
		if err := each(result); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s answered %s with a message of more than %d bytes", c.Server(), path, MaxMessage)
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return c.unreachable(err)
	}
	return ErrStreamEnded
}

var errForeign = errors.New("not a message of a stream")

// message takes a line of a stream apart: a result, or the google.rpc.Status that ended it.
func message(line []byte) (json.RawMessage, error) {
	var m struct {
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    codes.Code `json:"code"`
			Message string     `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil || m.Result == nil && m.Error == nil {
		return nil, errForeign
	}
	if m.Error != nil {
		return nil, &StatusError{Code: m.Error.Code, Message: m.Error.Message}
	}
	return m.Result, nil
}
