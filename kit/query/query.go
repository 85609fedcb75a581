// Package query turns the filters, sorts and page of a list request into SQL.
//
// What may be asked is read from the contract: SpecFor builds a Spec from the
// (query) options of a resource message. Compile checks a request strictly
// against it and answers with SQL whose text depends only on the shape of the
// request: every value, also the limit, is a bound parameter. Every statement
// names the tenant column. List runs a compiled query and makes the page.
package query

import (
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Limits of a list request.
const (
	// DefaultLimit is the number of rows per page when the request names none.
	DefaultLimit = 100
	// MaxLimit is the largest number of rows per page.
	MaxLimit = 1000
	// MaxSkip is the largest number of rows that may be skipped; deeper pages need
	// a page token.
	MaxSkip = 10_000
	// MaxFilters is the largest number of filters.
	MaxFilters = 20
	// MaxSorts is the largest number of sort keys.
	MaxSorts = 5
	// MaxListItems is the largest number of values of an "in" filter.
	MaxListItems = 100
	// MaxValueLength is the longest single filter value, in bytes.
	MaxValueLength = 1000
	// MaxAccounts is the largest number of accounts that one list merges; of a larger
	// scope it reads the first, which are those that the caller joined first.
	MaxAccounts = 50
	// MaxExactTotal is the largest total that is counted exactly.
	MaxExactTotal = 10_000
	// MaxTokenLength is the longest page token, in bytes.
	MaxTokenLength = 2048
)

// Request is what a caller asks of a list.
type Request struct {
	// Filters are "field:op:value" (or "field:is_null"); all must hold.
	Filters []string
	// Sorts are "field:asc", "field:desc" or "field", the first weighing most.
	Sorts []string
	// Skip is the number of rows to pass over, 0 to MaxSkip.
	Skip int32
	// Limit is the number of rows wanted, 1 to MaxLimit; 0 means DefaultLimit.
	Limit int32
	// PageToken is the next_page_token of the page before; empty on the first.
	PageToken string
	// Region is where phone numbers without a leading + are dialled, as ET (ISO 3166-1);
	// empty where that is not known.
	Region string
	// NoTotal leaves the total out, for who reads all pages anyway.
	NoTotal bool
	// Weight is the most that the page may weigh, for who reads page after page; 0 is
	// bounds.MaxPage.
	Weight int64
}

// ListRequest is what the list requests of the contract have in common.
type ListRequest interface {
	GetFilter() []string
	GetSort() []string
	GetSkip() int32
	GetLimit() int32
}

// RequestOf returns the query part of a list request of the contract. A request
// without page_token has no deep pages.
func RequestOf(r ListRequest) Request {
	request := Request{Filters: r.GetFilter(), Sorts: r.GetSort(), Skip: r.GetSkip(), Limit: r.GetLimit()}
	if paged, ok := r.(interface{ GetPageToken() string }); ok {
		request.PageToken = paged.GetPageToken()
	}
	return request
}

// page checks skip, limit and page token against each other and returns the
// limit that applies.
func (r Request) page() (int32, error) {
	switch {
	case r.Limit < 0 || r.Limit > MaxLimit:
		return 0, invalidPage("limit must be 1 to %d", MaxLimit)
	case r.Skip < 0:
		return 0, invalidPage("skip must not be negative")
	case r.Skip > MaxSkip:
		return 0, invalidPage("skip must be at most %d; use page_token for deeper pages", MaxSkip)
	case r.PageToken != "" && r.Skip > 0:
		return 0, invalidPage("skip and page_token exclude each other")
	case len(r.PageToken) > MaxTokenLength:
		return 0, invalidPage("page_token is not valid")
	case r.Limit == 0:
		return DefaultLimit, nil
	}
	return r.Limit, nil
}

func invalidFilter(format string, a ...any) error {
	return apierr.New(errorv1.Reason_REASON_INVALID_FILTER, format, a...)
}

func invalidSort(format string, a ...any) error {
	return apierr.New(errorv1.Reason_REASON_INVALID_SORT, format, a...)
}

func invalidPage(format string, a ...any) error {
	return apierr.New(errorv1.Reason_REASON_INVALID_PAGE, format, a...)
}
