package channeltest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
)

// Reply is a provider's canned answer to one HTTP request.
type Reply struct {
	// Status is the status code; 0 means 200.
	Status int
	// Header are lines such as "Retry-After: 30".
	Header []string
	// Body is the body; its length is announced.
	Body string
	// Raw, if not empty, is sent instead of a proper answer, and the connection is
	// closed after it.
	Raw string
	// Reset resets the connection instead of answering; Hold never answers.
	Reset, Hold bool
}

// HTTP returns a Peer that speaks TLS and answers the requests of its connection in
// order. A further request fails the test. Requests are recorded as they came, so
// Case.Wire sees their lines and their bodies.
func HTTP(replies ...Reply) Peer {
	return func(c *Conn) error {
		if err := c.StartTLS(); err != nil {
			return err
		}
		requests := bufio.NewReader(c)
		for i, reply := range replies {
			if err := readRequest(requests); err != nil {
				return fmt.Errorf("request %d: %w", i+1, err)
			}
			if done, err := c.answer(reply); done || err != nil {
				return err
			}
		}
		if _, err := requests.ReadByte(); err == nil {
			return errors.New("the adapter sent one request too many")
		}
		return nil
	}
}

func readRequest(r *bufio.Reader) error {
	request, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, request.Body)
	return errors.Join(err, request.Body.Close())
}

// answer reports whether the dialogue is over.
func (c *Conn) answer(r Reply) (done bool, err error) {
	switch {
	case r.Reset:
		return true, c.Reset()
	case r.Hold:
		return true, c.Hold()
	case r.Raw != "":
		_, err := io.WriteString(c.Conn, r.Raw)
		return true, errors.Join(err, c.Close())
	}
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	head := append([]string{
		fmt.Sprintf("HTTP/1.1 %d %s", r.Status, http.StatusText(r.Status)),
		"Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(r.Body)),
	}, r.Header...)
	_, err = io.WriteString(c.Conn, strings.Join(head, "\r\n")+"\r\n\r\n"+r.Body)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return true, nil // the adapter has read enough of it; its result says the rest
	}
	return false, err
}
