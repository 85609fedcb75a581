package mongodb

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	account "github.com/turumba/turumba/services/account"
)

// rekeyMost is how many contacts one look for odd keys finds.
const rekeyMost = 10_000

// Rekey brings the keys of contacts of before one normaliser into today's form, and returns
// the duplicates that it found; see postgres.Store. It looks at those whose keys have blanks
// or characters beyond ASCII, which is one reading of all contacts; those that stay so are
// looked at again by the next process.
func (s *Store) Rekey(ctx context.Context) (duplicates []string, left bool, err error) {
	odd := bson.D{{Key: "$regex", Value: "[^!-~]"}}
	var some bson.A
	for _, path := range []string{"email", "identifiers.telegram", "identifiers.whatsapp", "identifiers.messenger"} {
		some = append(some, bson.D{{Key: path, Value: odd}})
	}
	if s.rekeyed {
		return nil, false, nil
	}
	list, err := s.contacts.Owners(ctx, bson.D{{Key: "$or", Value: some}}, rekeyMost)
	if err != nil {
		return nil, false, err
	}
	for _, c := range list {
		duplicate, err := account.Rekey(ctx, s, c.AccountID, c.ID)
		if err != nil {
			return duplicates, true, err
		}
		if duplicate != "" {
			duplicates = append(duplicates, duplicate)
		}
	}
	s.rekeyed = true
	return duplicates, false, nil
}
