package mongodb

import "context"

// Translate is what a caller sees of an error.
func Translate(err error) error {
	return (&DB{}).translate(context.Background(), "try", err)
}
