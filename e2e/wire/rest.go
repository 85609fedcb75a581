package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// callREST makes the call over HTTP by the route of the contract.
func callREST(ctx context.Context, client *http.Client, base string, c Call) (Answer, error) {
	req, err := restRequest(ctx, base, c)
	if err != nil {
		return Answer{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	if c.Method.IsStreamingServer() && res.StatusCode == http.StatusOK {
		return streamAnswer(res)
	}
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, err
	}
	return restAnswer(res, data)
}

func streamAnswer(res *http.Response) (Answer, error) {
	a := Answer{HTTP: res.StatusCode, ContentType: res.Header.Get("Content-Type")}
	if strings.HasPrefix(a.ContentType, "text/csv") {
		text, err := io.ReadAll(res.Body)
		a.Body, a.Sent = map[string]any{"csv": string(text)}, text
		return a, err
	}
	var line json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&line); err != nil {
		return a, err
	}
	a.Sent = line
	return a, json.Unmarshal(line, &a.Body)
}

func restRequest(ctx context.Context, base string, c Call) (*http.Request, error) {
	rule := ruleOf(c.Method)
	verb, path := verbOf(rule)
	if path == "" {
		return nil, errors.New("the RPC has no route")
	}
	rest, contentType, file := maps.Clone(c.Body), "application/json", []byte(nil)
	if c.Method.IsStreamingClient() { // the body is the file or the items
		var parts []map[string]any
		rest, parts = upload(c.Method, c.Body)
		contentType, file = streamBody(parts)
	}
	if rest == nil {
		rest = map[string]any{}
	}
	path = pathVar.ReplaceAllStringFunc(path, func(s string) string {
		name := s[1 : len(s)-1]
		v := fmt.Sprint(rest[name])
		delete(rest, name)
		return url.PathEscape(v)
	})
	query, body := url.Values{}, file
	if rule.GetBody() == "" || c.Method.IsStreamingClient() {
		for k, v := range rest {
			if pairs, ok := v.(map[string]any); ok {
				for key, value := range pairs {
					query.Add(k, fmt.Sprintf("%s:%v", key, value))
				}
				continue
			}
			if list, ok := v.([]any); ok {
				for _, e := range list {
					query.Add(k, fmt.Sprint(e))
				}
				continue
			}
			query.Set(k, fmt.Sprint(v))
		}
	} else if b, err := json.Marshal(rest); err == nil {
		body = b
	}
	if c.Raw != "" {
		body = []byte(c.Raw)
	}
	target := base + path
	if q := strings.Trim(query.Encode()+"&"+c.Query, "&"); q != "" {
		target += "?" + q
	}
	req, err := http.NewRequestWithContext(ctx, verb, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 || c.Method.IsStreamingClient() {
		req.Header.Set("Content-Type", contentType)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.Key != "" {
		req.Header.Set("Idempotency-Key", c.Key)
	}
	for k, v := range c.Header {
		req.Header.Set(k, v)
	}
	return req, nil
}

func restAnswer(res *http.Response, data []byte) (Answer, error) {
	a := Answer{HTTP: res.StatusCode, ContentType: res.Header.Get("Content-Type"), Sent: data}
	if len(data) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(data, &a.Body); err != nil {
		return a, fmt.Errorf("answer is not JSON: %w: %.200s", err, data)
	}
	if a.HTTP < http.StatusBadRequest {
		return a, nil
	}
	var e struct {
		Detail, Code string
		Fields       []struct{ Field string }
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return a, err
	}
	a.Reason, a.Detail = e.Code, e.Detail
	for _, f := range e.Fields {
		a.Fields = append(a.Fields, f.Field)
	}
	if m, ok := a.Body.(map[string]any); ok {
		delete(m, "request_id")
		a.Raw = Canonical(m)
	}
	return a, nil
}
