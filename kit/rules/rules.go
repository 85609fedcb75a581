// Package rules holds items of a call to the field rules of the contract one by one, where
// each has a result of its own. What a call is as a whole, the chain of kit/grpcserver holds to
// them.
package rules

import (
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

var validator = sync.OnceValues(func() (protovalidate.Validator, error) { return protovalidate.New() })

// Check is VALIDATION_FAILED with the fields of the item that break a rule; nil for none.
func Check(item proto.Message) error {
	v, err := validator()
	if err != nil {
		return apierr.Internal(fmt.Errorf("prepare validation: %w", err))
	}
	err = v.Validate(item)
	var invalid *protovalidate.ValidationError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &invalid):
		return apierr.Internal(fmt.Errorf("validate: %w", err))
	}
	fields := make([]apierr.Field, len(invalid.Violations))
	for i, one := range invalid.Violations {
		fields[i] = apierr.Field{Field: protovalidate.FieldPathString(one.Proto.GetField()), Message: one.Proto.GetMessage()}
	}
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").WithFields(fields...)
}

// maxDetail is the most characters of a sentence about an item.
const maxDetail = 1024

// Detail is an error of an item as one sentence, its fields included.
func Detail(err error) string {
	e := apierr.From(err)
	detail := e.Message
	for _, f := range e.Fields {
		if f.Field == "" {
			detail += "; " + f.Message
		} else {
			detail += "; " + f.Field + " " + f.Message
		}
	}
	if utf8.RuneCountInString(detail) > maxDetail {
		detail = string([]rune(detail)[:maxDetail-1]) + "…"
	}
	return detail
}
